-- Asks for 10,000 paths in an order that repeats none before all were asked for; rendered once, so
-- that a request costs wrk next to nothing. Ends with one line that a program can read.

local KEYS = 10000
local STRIDE = 7919 -- prime to KEYS

local requests = {}
local next_one = 0

function init()
    for i = 0, KEYS - 1 do
        requests[i] = wrk.format("GET", "/key/" .. i)
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
