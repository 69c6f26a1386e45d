-- KEYS: ids published stalled. ARGV: id.
local ids, published, stalled = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]
if redis.call('SISMEMBER', stalled, id) == 0 then return {'ok', 0} end
redis.call('LPUSH', ids, id)
redis.call('SREM', stalled, id)
redis.call('ZADD', published, milliseconds(), id)
return {'ok', 1}
