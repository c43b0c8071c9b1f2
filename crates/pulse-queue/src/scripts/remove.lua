-- Acknowledges and deletes entries, and counts them by user. Ids without an entry are only acknowledged.
-- KEYS: tasks, bulk, backlog, deep. ARGV: group, number of ids of tasks; then the ids of tasks and those of bulk.
local removed = {}

local function user_of(entry)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'user' then
      return fields[i + 1]
    end
  end
end

local last_of_tasks = 2 + tonumber(ARGV[2])
for i = 3, #ARGV do
  local stream = i <= last_of_tasks and KEYS[1] or KEYS[2]
  local id = ARGV[i]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  redis.call('XACK', stream, ARGV[1], id)
  if entry then
    redis.call('XDEL', stream, id)
    local user = user_of(entry)
    if user then
      removed[user] = (removed[user] or 0) + 1
    end
  end
end
for user, entries in pairs(removed) do
  if redis.call('HINCRBY', KEYS[3], user, -entries) <= 0 then
    redis.call('HDEL', KEYS[3], user)
    redis.call('SREM', KEYS[4], user)
  end
end
-- If a stream was deleted or evicted alone, its entries stay counted: the counts start again with empty streams.
if redis.call('XLEN', KEYS[1]) == 0 and redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[3], KEYS[4])
end
