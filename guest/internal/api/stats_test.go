package api

import "testing"

func TestFiguresOfProc(t *testing.T) {
	busy, idle := cpuTimes("cpu  100 1 20 3000 40 5 6 7 50 0\ncpu0 1 1 1 1\n")
	if busy != 1390 || idle != 30400 {
		t.Error("processor time", busy, idle)
	}
	received, sent := netBytes(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0
  eth0:1234 5 0 0 0 0 0 0 99 1 0 0 0 0 0 0
`)
	if received != 1234 || sent != 99 {
		t.Error("network", received, sent)
	}
	read, written := diskBytes(` 254       0 vda 10 0 8 1 20 0 16 2 0 0 0
 254      16 vdb 10 0 2 1 20 0 4 2 0 0 0
 254      17 vdb1 10 0 900 1 20 0 900 2 0 0 0
   7       0 loop0 10 0 900 1 20 0 900 2 0 0 0
`)
	if read != 10*512 || written != 20*512 {
		t.Error("disks", read, written)
	}
	for _, broken := range []string{"", "cpu", "cpu 1 2", "a:b", " 254 0 vda"} {
		busy, idle := cpuTimes(broken)
		received, sent := netBytes(broken)
		read, written := diskBytes(broken)
		if busy+idle+received+sent+read+written != 0 {
			t.Error(broken)
		}
	}
	if total, free := room("/"); total <= 0 || free <= 0 || free > total {
		t.Error("room", total, free)
	}
}
