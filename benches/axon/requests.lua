-- Each thread sends the requests of its own file, each once, and none again: a thread that has sent them all ends the run.

local number = 0
function setup(thread)
   thread:set("file", os.getenv("REQUESTS") .. "." .. number)
   number = number + 1
end

function init()
   requests = assert(io.open(file, "rb"))
   requests:setvbuf("full", 262144)
end

function request()
   local line = requests:read("*l")
   if not line then
      io.stderr:write("all signed requests of ", file, " were sent: sign more, or run for less\n")
      os.exit(3)
   end
   return requests:read(tonumber(line))
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,'
         .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99), latency.max,
      e.connect, e.read, e.write, e.timeout, e.status))
end
