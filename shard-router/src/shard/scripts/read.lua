-- KEYS: ids items config. ARGV: channel-of-the-mark-or-empty nonce.
local ids, items, config = KEYS[1], KEYS[2], KEYS[3]
local shape, typed = shape_of(ids, items, config)
local held = type_of(ids)
local order, found = {}, {}
if not string.find(shape, '^feed%.') then order, found = load(ids, items, held) end
if ARGV[1] ~= '' then say(ARGV[1], ARGV[2]) end
return {'ok', held, shape, typed or '', order, found}
