module vmsan/nethelper

go 1.22
