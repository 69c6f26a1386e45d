-- KEYS: ids items config publishes. ARGV: feed id item.
local ids, items, config, publishes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local feed, id, item = ARGV[1], ARGV[2], ARGV[3]
local shape = shape_of(ids, items, config)
local plain = shape == 'feed'
if not plain and not fits(shape, 'sorted_feed') then return {'kind', shape} end
if redis.call('HEXISTS', items, id) == 0 then return {'unknown'} end
if plain and not redis.call('ZSCORE', ids, id) then return {'unknown'} end
redis.call('INCR', publishes)
if plain then
  put_plain(ids, items, config, feed, id, item)
else
  edit_sorted(items, feed, id, item)
end
return {'ok'}
