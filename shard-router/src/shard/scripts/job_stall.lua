-- KEYS: published claimed cancelled stalled. ARGV: id.
local published, claimed, cancelled, stalled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]
if not redis.call('ZSCORE', claimed, id) then return {'ok', 0} end
redis.call('SADD', stalled, id)
redis.call('ZREM', claimed, id)
redis.call('HDEL', cancelled, id)
redis.call('ZREM', published, id)
return {'ok', 1}
