-- A connection for each request.
dofile(os.getenv("BENCH_LUA") .. "/report.lua")

wrk.headers["Connection"] = "close"
