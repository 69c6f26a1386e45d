-- KEYS: feeds, then every key that a feed of any type may have. ARGV: feed instance.
local feed, instance = ARGV[1], ARGV[2]
local gone = redis.call('SREM', KEYS[1], feed)
for place = 2, #KEYS do
  gone = gone + redis.call('UNLINK', KEYS[place])
end
if gone > 0 then say('delfeed', feed .. '\0' .. instance) end
return {'ok', gone}
