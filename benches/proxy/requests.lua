-- The requests of the workloads that wrk loads: `wrk … URL get|post|connect|large|https`.
-- They name the paths in an order that repeats none before all were asked for; rendered once, so that a request costs
-- wrk next to nothing. Ends with one line that a program can read.

local KEYS = 10000
local STRIDE = 7919 -- prime to KEYS
local BODY = 4096 -- bytes

local render = {
    get = function(key) return wrk.format("GET", "/key/" .. key) end,
    -- Ends with the key: LuaJIT hashes few bytes of a long string, the last four among them.
    post = function(key)
        local tail = string.format("%04d", key)
        return wrk.format("POST", "/key/" .. key, nil, string.rep("x", BODY - #tail) .. tail)
    end,
    connect = function(key) return wrk.format("GET", "/key/" .. key, { Connection = "close" }) end,
    large = function(key) return wrk.format("GET", "/large/" .. key) end,
}
render.https = render.get

local requests = {}
local next_one = 0

function init(arguments)
    for key = 0, KEYS - 1 do
        requests[key] = render[arguments[1]](key)
    end
end

function request()
    next_one = (next_one + STRIDE) % KEYS
    return requests[next_one]
end

function done(summary)
    local e = summary.errors
    local errors = e.connect + e.read + e.write + e.status + e.timeout
    io.write(string.format("RESULT %d %d\n", summary.requests, errors))
end
