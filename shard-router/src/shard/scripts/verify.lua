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

local function version_of(ids, items, held)
  local order, found = load(ids, items, held)
  local sums, seen, before = {0, 0, 0}, {}, ''
  for place = 1, #order do
    local id, item = order[place], found[place]
    if item and not seen[id] and is_text(id) then
      local digest = redis.sha1hex(before .. '\0' .. id .. '\0' .. item)
      for word = 1, 3 do
        local part = tonumber(string.sub(digest, word * 8 - 7, word * 8), 16)
        sums[word] = (sums[word] + part) % 4294967296
      end
      if held == 'list' then before = id end
    end
    seen[id] = true
  end
  return string.format('%08x%08x%08x', sums[1], sums[2], sums[3])
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
