-- KEYS: config feeds. ARGV: feed instance, then field and value by turns.
local config, feeds = KEYS[1], KEYS[2]
local feed, instance = ARGV[1], ARGV[2]
if redis.call('SISMEMBER', feeds, feed) == 0 then return {'ok', 0} end
for place = 3, #ARGV, 2 do
  redis.call('HSET', config, ARGV[place], ARGV[place + 1])
end
say('conffeed', feed .. '\0' .. instance)
return {'ok', 1}
