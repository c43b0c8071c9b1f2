-- Reads new entries of both streams for a consumer, and answers like XREADGROUP.
-- KEYS: tasks, bulk. ARGV: group, consumer, number of entries, how many of them bulk may have while tasks has more.
local reply = {}
local left, share = tonumber(ARGV[3]), tonumber(ARGV[4])

local function read(stream, count)
  -- COUNT 0 would be no limit.
  if count == 0 then
    return
  end
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', stream, '>')
  if answer then
    reply[#reply + 1] = answer[1]
    left = left - #answer[1][2]
  end
end

local function newest_delivered(stream)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if group[2] == ARGV[1] then
      return group[8]
    end
  end
  return '0-0'
end

-- The share of bulk is for entries that are older than all undelivered ones of tasks: so a user's entries are delivered
-- in the order in which they were added, across both streams.
if share > 0 and redis.call('XLEN', KEYS[1]) > 0 and redis.call('XLEN', KEYS[2]) > 0 then
  local before = tonumber(string.match(newest_delivered(KEYS[1]), '^%d+')) - 1
  if before > 0 then
    local start = '(' .. newest_delivered(KEYS[2])
    read(KEYS[2], #redis.call('XRANGE', KEYS[2], start, string.format('%d', before), 'COUNT', share))
  end
end
read(KEYS[1], left)
read(KEYS[2], left)
return reply
