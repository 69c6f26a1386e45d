-- KEYS: ids items published claimed cancelled stalled. ARGV: id.
local ids, items, published, claimed, cancelled, stalled =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id = ARGV[1]
if redis.call('HEXISTS', items, id) == 0 then return {'ok', 0} end
redis.call('LREM', ids, 0, id)
redis.call('HDEL', cancelled, id)
redis.call('ZREM', published, id)
redis.call('SREM', stalled, id)
redis.call('ZREM', claimed, id)
redis.call('HDEL', items, id)
return {'ok', 1}
