-- KEYS: ids items config feeds. ARGV: feed type max_length-or-empty instance.
local ids, items, config, feeds = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local feed, want, max, instance = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('SISMEMBER', feeds, feed) == 1 then return {'ok', 0} end
local shape, typed = shape_of(ids, items, config)
if not fits(shape, want) then return {'kind', shape} end
redis.call('SADD', feeds, feed)
redis.call('HSET', config, 'type', want)
if max ~= '' then redis.call('HSET', config, 'max_length', max) end
say('newfeed', feed .. '\0' .. instance)
say('conffeed', feed .. '\0' .. instance)
return {'ok', 1}
