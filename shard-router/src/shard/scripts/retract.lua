-- KEYS: ids items config. ARGV: feed id.
local ids, items, config = KEYS[1], KEYS[2], KEYS[3]
local feed, id = ARGV[1], ARGV[2]
local shape = shape_of(ids, items, config)
if shape ~= 'feed' and not fits(shape, 'sorted_feed') then return {'kind', shape} end
return {'ok', remove(shape, ids, items, feed, id)}
