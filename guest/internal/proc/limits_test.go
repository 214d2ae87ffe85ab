package proc

import "testing"

func TestLimitsAreChecked(t *testing.T) {
	good := []Limit{{"nofile", 512, 1024}, {"memlock", -1, -1}, {"core", 0, -1}}
	if err := CheckLimits(good); err != nil {
		t.Fatal(err)
	}
	for _, l := range []Limit{{"files", 1, 2}, {"", 1, 2}, {"nofile", 2, 1}, {"nofile", -1, 1}, {"nofile", -2, -1}, {"nofile", 1, -2}} {
		if CheckLimits([]Limit{l}) == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}
