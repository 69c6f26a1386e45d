-- KEYS: ids items config. ARGV: channel-of-the-mark-or-empty nonce.
local ids, items, config = KEYS[1], KEYS[2], KEYS[3]
local shape, typed = shape_of(ids, items, config)
local held = type_of(ids)
local order, found = {}, {}
if not string.find(shape, '^feed%.') then
  if held == 'zset' then
    order = redis.call('ZRANGE', ids, 0, -1)
  elseif held == 'list' then
    order = redis.call('LRANGE', ids, 0, -1)
  end
  -- A call takes some thousands of arguments, not more.
  for first = 1, #order, 1000 do
    local last = math.min(first + 999, #order)
    for _, item in ipairs(redis.call('HMGET', items, unpack(order, first, last))) do
      found[#found + 1] = item
    end
  end
end
if ARGV[1] ~= '' then say(ARGV[1], ARGV[2]) end
return {'ok', held, shape, typed or '', order, found}
