-- KEYS: ids items config published claimed cancelled. ARGV: queue.
-- Ids without an item are dropped on the way, so many at once.
local ids, items, config, published, claimed, cancelled =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local feed = ARGV[1]
local shape = shape_of(ids, items, config)
if not fits(shape, 'job') then return {'kind', shape} end
-- Asked before the pop: a key of a wrong type must not cost a job.
redis.call('ZCARD', published)
redis.call('ZCARD', claimed)
redis.call('HLEN', cancelled)
for _ = 1, TRIM do
  local id = redis.call('RPOP', ids)
  if not id then return {'none'} end
  local item = redis.call('HGET', items, id)
  if item then
    local now = milliseconds()
    local put = tonumber(redis.call('ZSCORE', published, id) or '')
    local age = put and string.format('%.0f', math.max(0, tonumber(now) - put))
    redis.call('ZADD', claimed, now, id)
    say('feed.claimed:' .. feed, id)
    return {'ok', id, item, redis.call('HGET', cancelled, id) or '0', age or false}
  end
end
return {'again'}
