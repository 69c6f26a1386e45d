-- KEYS: ids claimed cancelled. ARGV: id.
local ids, claimed, cancelled = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
if not redis.call('ZSCORE', claimed, id) then return {'ok', 0} end
redis.call('HINCRBY', cancelled, id, 1)
redis.call('LPUSH', ids, id)
redis.call('ZREM', claimed, id)
return {'ok', 1}
