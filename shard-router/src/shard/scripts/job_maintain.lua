-- KEYS: ids items claimed stalled. ARGV: the ids that the pass before found unaccounted.
-- Puts those back that still are; answers how many, and which others are now.
local ids, items, claimed, stalled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local accounted = {}
for _, id in ipairs(redis.call('LRANGE', ids, 0, -1)) do accounted[id] = true end
for _, id in ipairs(redis.call('ZRANGE', claimed, 0, -1)) do accounted[id] = true end
for _, id in ipairs(redis.call('SMEMBERS', stalled)) do accounted[id] = true end
local before = {}
for _, id in ipairs(ARGV) do before[id] = true end
local back, now = 0, {}
for _, id in ipairs(redis.call('HKEYS', items)) do
  if not accounted[id] then
    if before[id] then
      redis.call('LPUSH', ids, id)
      back = back + 1
    else
      now[#now + 1] = id
    end
  end
end
return {'ok', back, now}
