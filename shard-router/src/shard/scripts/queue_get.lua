-- KEYS: ids items config. Ids without an item are dropped on the way, so many at once.
local ids, items, config = KEYS[1], KEYS[2], KEYS[3]
local shape = shape_of(ids, items, config)
if not fits(shape, 'queue') then return {'kind', shape} end
for _ = 1, TRIM do
  local id = redis.call('RPOP', ids)
  if not id then return {'none'} end
  local item = redis.call('HGET', items, id)
  if item then
    redis.call('HDEL', items, id)
    return {'ok', id, item}
  end
end
return {'again'}
