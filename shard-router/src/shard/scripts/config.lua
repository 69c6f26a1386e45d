-- KEYS: config.
return {'ok', redis.call('HGETALL', KEYS[1])}
