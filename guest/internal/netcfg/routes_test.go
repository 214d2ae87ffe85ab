package netcfg

import "testing"

func TestRoutesAreChecked(t *testing.T) {
	with := func(gateway string, r Route) *Request {
		return &Request{Network: &Network{Interfaces: []Interface{{MAC: "02:00:00:00:00:01", Gateway4: gateway, Routes: []Route{r}}}}}
	}
	good := Route{To: "198.18.3.0/24", Source: "198.18.3.2"}
	if _, err := check(with("198.19.0.1", good)); err != nil {
		t.Fatal(err)
	}
	if _, err := check(with("", good)); err == nil {
		t.Error("a route without a gateway is taken")
	}
	for _, r := range []Route{
		{To: "0.0.0.0/0", Source: "198.18.3.2"},
		{To: "198.18.3.1/24", Source: "198.18.3.2"},
		{To: "fd00::/64", Source: "198.18.3.2"},
		{To: "198.18.3.0/24", Source: "fd00::2"},
		{To: "198.18.3.0/24"},
		{Source: "198.18.3.2"},
	} {
		if _, err := check(with("198.19.0.1", r)); err == nil {
			t.Errorf("%+v is taken", r)
		}
	}
}
