-- KEYS: items published claimed cancelled finishes kept-result.
-- ARGV: queue id seconds-to-keep, and the result where there is one.
local items, published, claimed, cancelled, finishes, kept =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local feed, id, keep, result = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not redis.call('ZSCORE', claimed, id) then return {'ok', 0} end
redis.call('INCR', finishes)
redis.call('ZREM', claimed, id)
redis.call('HDEL', cancelled, id)
redis.call('ZREM', published, id)
redis.call('HDEL', items, id)
if result then
  redis.call('SET', kept, result, 'EX', keep)
  say('job.finish:' .. feed, id .. '\0' .. result)
end
return {'ok', 1}
