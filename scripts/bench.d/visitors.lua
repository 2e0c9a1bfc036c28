-- A browser's headers, from thousands of visitors by turns: no header block comes twice within a moment.
dofile(os.getenv("BENCH_LUA") .. "/browser.lua")

local visitors, turn = 5000, 0

request = function()
  turn = (turn + 1) % visitors
  wrk.headers["Cookie"] = string.format("sessionid=%032x; csrftoken=%032x", turn * 7919, turn * 104729)
  return wrk.format()
end
