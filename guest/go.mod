module vmsan/guest

go 1.24
