-- KEYS: ids items config of each feed. ARGV: channel-of-the-mark nonce. Answers for each
-- feed what `ids` is, the shape, the config's type, and the version of its content.

-- Tells whether an id is UTF-8 without NUL: others are not part of the content.
local function is_text(id)
  if string.find(id, '\0', 1, true) then return false end
  if not string.find(id, '[\128-\255]') then return true end
  local at = 1
  while at <= #id do
    local lead = string.byte(id, at)
    local more, low, high = 0, 128, 191
    if lead >= 194 and lead <= 223 then
      more = 1
    elseif lead >= 224 and lead <= 239 then
      more = 2
      if lead == 224 then low = 160 elseif lead == 237 then high = 159 end
    elseif lead >= 240 and lead <= 244 then
      more = 3
      if lead == 240 then low = 144 elseif lead == 244 then high = 143 end
    elseif lead >= 128 then
      return false
    end
    for place = at + 1, at + more do
      local byte = string.byte(id, place)
      if not byte or byte < low or byte > high then return false end
      low, high = 128, 191
    end
    at = at + more + 1
  end
  return true
end

local find, sha1hex, sub, tonumber = string.find, redis.sha1hex, string.sub, tonumber

-- Sums three words of each item's digest. The sums are folded once a chunk: far below
-- 2^53, up to which a Lua number counts exactly.
local function version_of(ids, items, held)
  local first, second, third, seen, before = 0, 0, 0, {}, ''
  local sorted = held == 'list'
  local order = listed(ids, held)
  for at = 1, #order, CHUNK do
    local last = math.min(at + CHUNK - 1, #order)
    local found = redis.call('HMGET', items, unpack(order, at, last))
    for place = at, last do
      local id, item = order[place], found[place - at + 1]
      if item and not seen[id] and (not find(id, '[%z\128-\255]') or is_text(id)) then
        local digest = sha1hex(before .. '\0' .. id .. '\0' .. item)
        first = first + tonumber(sub(digest, 1, 8), 16)
        second = second + tonumber(sub(digest, 9, 16), 16)
        third = third + tonumber(sub(digest, 17, 24), 16)
        if sorted then before = id end
      end
      if sorted then seen[id] = true end
    end
    first, second, third = first % 4294967296, second % 4294967296, third % 4294967296
  end
  return string.format('%08x%08x%08x', first, second, third)
end

local answers = {}
for feed = 1, #KEYS, 3 do
  local ids, items, config = KEYS[feed], KEYS[feed + 1], KEYS[feed + 2]
  local shape, typed = shape_of(ids, items, config)
  local held = type_of(ids)
  local version = ''
  if not string.find(shape, '^feed%.') then version = version_of(ids, items, held) end
  answers[#answers + 1] = {held, shape, typed or '', version}
end
if ARGV[1] ~= '' then say(ARGV[1], ARGV[2]) end
return {'ok', answers}
