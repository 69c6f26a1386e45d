-- KEYS: ids items config. ARGV: feed id place.
local ids, items, config = KEYS[1], KEYS[2], KEYS[3]
local feed, id, place = ARGV[1], ARGV[2], ARGV[3]
local shape = shape_of(ids, items, config)
if not fits(shape, 'sorted_feed') then return {'kind', shape} end
if not in_sorted(ids, items, id) then return {'unknown'} end
local neighbour = neighbour_of(place)
if neighbour and not in_sorted(ids, items, neighbour) then return {'neighbour'} end
redis.call('LREM', ids, 0, id)
link(ids, id, place)
say('feed.position:' .. feed, id .. '\0' .. place)
return {'ok'}
