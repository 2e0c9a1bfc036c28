-- Every second request is one that waits.
dofile(os.getenv("BENCH_LUA") .. "/report.lua")

local turn, paths = 0, {}

function init()
  paths[0], paths[1] = wrk.format("GET", "/slow"), wrk.format("GET", "/quick")
end

function request()
  turn = 1 - turn
  return paths[turn]
end
