-- Health of a PulseIngest for Argo CD, which reports a resource of an unknown kind as healthy at once.
-- docs/how-to/gitops.md says how to install it.

local health = { status = "Progressing", message = "the operator has not reconciled this version of the object yet" }

local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions.Ready, conditions.Stalled
if ready == nil then
  return health
end
health.message = ready.message

if ready.reason == "PlanNeedsApproval" or ready.reason == "ManualMigrationNeeded" then
  -- A person has to approve or run the migration. Nothing has failed.
  health.status = "Suspended"
elseif stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
  health.message = stalled.message
elseif obj.spec.paused then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
end
return health
