-- KEYS: ids items config publishes idincr feeds. ARGV: feed item place max_length-or-empty instance.
local ids, items, config, publishes, idincr, feeds =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local feed, item, place, max, instance = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local shape, typed = shape_of(ids, items, config)
if not fits(shape, 'sorted_feed') then return {'kind', shape} end
local neighbour = neighbour_of(place)
if neighbour and not in_sorted(ids, items, neighbour) then return {'neighbour'} end
local id = next_id(idincr, items)
redis.call('INCR', publishes)
register(feeds, config, feed, shape, typed, 'sorted_feed', max, instance)
put_sorted(ids, items, config, feed, id, item, place)
return {'ok', id}
