from a:1 As Base
run echo x
Copy a /x
env A=b
FROM base
cmd ["x"]
