local health = {status = "Progressing", message = "Waiting for boltz-operator"}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "The keys are being revoked"
  return health
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions["Ready"], conditions["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  health.status, health.message = "Degraded", stalled.message
elseif ready ~= nil and ready.status == "True" then
  health.status, health.message = "Healthy", ready.message
elseif ready ~= nil and (ready.reason == "Suspended" or ready.reason == "Paused") then
  health.status, health.message = "Suspended", ready.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
