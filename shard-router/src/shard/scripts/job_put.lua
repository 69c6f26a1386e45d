-- KEYS: ids items config publishes published feeds kept-result.
-- ARGV: queue id item verb-of-push max_queued instance.
local ids, items, config, publishes, published, feeds, kept =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local feed, id, item, push, max_queued, instance =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local shape, typed = shape_of(ids, items, config)
if not fits(shape, 'job') then return {'kind', shape} end
local result = redis.call('GET', kept)
if result then return {'kept', result} end
if redis.call('HEXISTS', items, id) == 1 then return {'known'} end
if redis.call('LLEN', ids) >= tonumber(max_queued) then return {'full'} end
redis.call('INCR', publishes)
redis.call('ZADD', published, milliseconds(), id)
register(feeds, config, feed, shape, typed, 'job', '', instance)
redis.call(push, ids, id)
redis.call('HSET', items, id, item)
say('feed.publishes:' .. feed, id .. '\0' .. item)
return {'ok'}
