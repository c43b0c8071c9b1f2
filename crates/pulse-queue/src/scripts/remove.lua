-- Acknowledges and deletes entries, and subtracts their weights by user. Ids without an entry are only acknowledged.
-- KEYS: tasks, bulk, backlog, deep. ARGV: group, number of ids of tasks; then the ids of tasks and those of bulk.
local removed = {}

local function subtract(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  if fields.user then
    removed[fields.user] = (removed[fields.user] or 0) + tonumber(fields.weight or 1)
  end
end

local function remove(stream, first, last)
  local seen = {}
  for i = first, last do
    local id = ARGV[i]
    local entry = not seen[id] and redis.call('XRANGE', stream, id, id)[1]
    if entry then
      subtract(entry)
    end
    seen[id] = true
  end
  if first <= last then
    -- Allowed although Redis may be full, and so is every later write of the script.
    redis.call('XACK', stream, ARGV[1], unpack(ARGV, first, last))
    redis.call('XDEL', stream, unpack(ARGV, first, last))
  end
end

local last_of_tasks = 2 + tonumber(ARGV[2])
remove(KEYS[1], 3, last_of_tasks)
remove(KEYS[2], last_of_tasks + 1, #ARGV)
for user, weight in pairs(removed) do
  if redis.call('HINCRBY', KEYS[3], user, -weight) <= 0 then
    redis.call('HDEL', KEYS[3], user)
    redis.call('SREM', KEYS[4], user)
  end
end
-- If a stream was deleted or evicted alone, its entries stay counted: the counts start again with empty streams.
if redis.call('XLEN', KEYS[1]) == 0 and redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[3], KEYS[4])
end
