module vmsan/nettool

go 1.23
