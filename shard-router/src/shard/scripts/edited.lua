-- The edit worker's four verbs, each done once: what was done is noted beside the feed.
-- KEYS: ids items config publishes idincr feeds note.
-- ARGV: feed instance seconds-to-keep result verb, then
--   set: id expected item; delete: id; move: id place;
--   add: new-id item place-or-empty type-of-a-new-feed max_length-or-empty.
local ids, items, config, publishes, idincr, feeds, note =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local feed, instance, keep, result, verb = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local id = ARGV[6]

local noted = redis.call('GET', note)
if noted then return {'done', noted} end

local shape, typed = shape_of(ids, items, config)
local plain = shape == 'feed' or (verb == 'add' and shape == 'none' and ARGV[9] == 'feed')
if not plain and not fits(shape, 'sorted_feed') then return {'kind', shape} end

local place = verb == 'add' and ARGV[8] or verb == 'move' and ARGV[7] or ''
if plain and place ~= '' then return {'kind', 'feed'} end
if verb ~= 'add' then
  local known = redis.call('HEXISTS', items, id) == 1
  if known and plain then known = redis.call('ZSCORE', ids, id) ~= false end
  if known and verb == 'move' then known = redis.call('LPOS', ids, id) ~= false end
  if verb == 'move' and plain then return {'kind', 'feed'} end
  if not known then return {'unknown'} end
end
local neighbour = place ~= '' and neighbour_of(place)
if neighbour and not in_sorted(ids, items, neighbour) then return {'neighbour'} end

if verb == 'set' then
  local current = redis.call('HGET', items, id)
  if current ~= ARGV[7] then return {'changed', current} end
  redis.call('INCR', publishes)
  if plain then
    put_plain(ids, items, config, feed, id, ARGV[8])
  else
    edit_sorted(items, feed, id, ARGV[8])
  end
elseif verb == 'delete' then
  remove(shape, ids, items, feed, id)
elseif verb == 'move' then
  redis.call('LREM', ids, 0, id)
  link(ids, id, place)
  say('feed.position:' .. feed, id .. '\0' .. place)
else
  if not plain then id = next_id(idincr, items) end
  redis.call('INCR', publishes)
  register(feeds, config, feed, shape, typed, plain and 'feed' or 'sorted_feed', ARGV[10], instance)
  if plain then
    put_plain(ids, items, config, feed, id, ARGV[7])
  else
    put_sorted(ids, items, config, feed, id, ARGV[7], place == '' and ':end' or place)
  end
  result = id
end
redis.call('SET', note, result, 'EX', keep)
return {'ok', id}
