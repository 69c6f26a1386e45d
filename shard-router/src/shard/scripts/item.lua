-- KEYS: items. ARGV: id.
return {'ok', redis.call('HGET', KEYS[1], ARGV[1])}
