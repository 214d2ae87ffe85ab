package proc

import (
	"strings"
	"testing"
)

func TestOptionsOfJavaKeepTheAuthorities(t *testing.T) {
	const ours = "-Djavax.net.ssl.trustStore=/run/vmsan/cacerts.jks -Djavax.net.ssl.trustStoreType=JKS"
	for _, c := range [][3]string{
		{ours, "-Xmx1g", ours + " -Xmx1g"},
		{ours + " -Xms5m", "-Xmx1g", ours + " -Xmx1g"},
		{ours, "", ""},
		{ours, "-Djavax.net.ssl.trustStore=/own.jks", "-Djavax.net.ssl.trustStore=/own.jks"},
		{"-Xmx2g", "-Xmx1g", "-Xmx1g"},
		{"-Djavax.net.ssl.trustStore=/own.jks", "-Xmx1g", "-Xmx1g"},
	} {
		got := Environment([]string{"JAVA_TOOL_OPTIONS=" + c[0], "A=1"}, []string{"JAVA_TOOL_OPTIONS=" + c[1], "A=2"})
		if strings.Join(got, ";") != "JAVA_TOOL_OPTIONS="+c[2]+";A=2" {
			t.Errorf("%q and %q give %q", c[0], c[1], got)
		}
	}
}
