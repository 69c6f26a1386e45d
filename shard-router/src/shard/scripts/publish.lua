-- KEYS: ids items config publishes feeds. ARGV: feed id item max_length-or-empty instance.
local ids, items, config, publishes, feeds = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local feed, id, item, max, instance = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local shape, typed = shape_of(ids, items, config)
if not fits(shape, 'feed') then return {'kind', shape} end
redis.call('INCR', publishes)
register(feeds, config, feed, shape, typed, 'feed', max, instance)
return {'ok', put_plain(ids, items, config, feed, id, item)}
