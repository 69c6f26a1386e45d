-- KEYS: feeds.
return {'ok', redis.call('SMEMBERS', KEYS[1])}
