-- KEYS: ids items config of each feed. ARGV: channel-of-the-mark nonce, then for each
-- feed how many ids are asked, and these. Answers for each feed what `ids` is, the
-- shape, the config's type, the items (false where there is none), the whole list.
local answers = {}
local at = 3
for feed = 1, #KEYS, 3 do
  local ids, items, config = KEYS[feed], KEYS[feed + 1], KEYS[feed + 2]
  local shape, typed = shape_of(ids, items, config)
  local held = type_of(ids)
  local asked = tonumber(ARGV[at])
  local found, order = {}, {}
  if not string.find(shape, '^feed%.') then
    for place = 1, asked do
      local id = ARGV[at + place]
      if held == 'none' or (held == 'zset' and not redis.call('ZSCORE', ids, id)) then
        found[place] = false
      else
        found[place] = redis.call('HGET', items, id)
      end
    end
    if held == 'list' then order = redis.call('LRANGE', ids, 0, -1) end
  end
  at = at + asked + 1
  answers[#answers + 1] = {held, shape, typed or '', found, order}
end
if ARGV[1] ~= '' then say(ARGV[1], ARGV[2]) end
return {'ok', answers}
