package files

import "testing"

func TestStatesOfAVolumeAreKnown(t *testing.T) {
	for name, want := range map[string]bool{
		"..2026_01_31_12_00_00.1234567890": true,
		"..2026_1":                         true,
		"..2026_.":                         true,
		"..2026_":                          false,
		"..2026":                           false,
		"..202a_1":                         false,
		"..2026-1":                         false,
		"..2026_1x":                        false,
		".2026_1":                          false,
		"2026_01":                          false,
		"..data":                           false,
		"..data_tmp":                       false,
		"":                                 false,
	} {
		if isState(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
