package netcfg

import (
	"bytes"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"vmsan/guest/internal/proc"
)

// Trust is the authority that signs what stands between the guest and the servers of its secrets.
type Trust struct {
	// Certificate is the authority's, PEM; "" takes away what an earlier one has left.
	Certificate string `json:"certificate"`
	// Subject is its common name.
	Subject string `json:"subject"`
	// Roots are public authorities, PEM, for an image that has none.
	Roots string `json:"roots"`
	// Files are further bundles that the image's environment names.
	Files []string `json:"files"`
}

const (
	trustDir   = proc.TrustDir
	trustName  = "vmsan-secrets.crt"
	trustBegin = "# vmsan: the authority of this VM's secrets\n"
	trustEnd   = "# vmsan: end\n"
	// maxBundle bounds a bundle that is changed, in bytes.
	maxBundle = 8 << 20
)

// bundles are where programs look for authorities, in one file each: Debian, Alpine and Arch; Fedora and
// its kin; openSUSE; OpenSSL's own default.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/var/lib/ca-certificates/ca-bundle.pem",
	"/etc/ssl/cert.pem",
	"/etc/pki/tls/cert.pem",
}

// anchors are directories from which a distribution's own tool makes its bundles anew, and a file that
// tells the distribution apart where the directory may be missing.
var anchors = []struct{ dir, sign string }{
	{"/usr/local/share/ca-certificates", "/etc/debian_version"},
	{"/usr/local/share/ca-certificates", "/etc/alpine-release"},
	{"/etc/pki/ca-trust/source/anchors", "/etc/pki/ca-trust"},
	{"/etc/ca-certificates/trust-source/anchors", "/etc/arch-release"},
	{"/etc/pki/trust/anchors", "/etc/pki/trust"},
}

// apply makes the guest below root trust t's authority, or no longer trust an earlier one's, and gives
// the variables that lead programs with stores of their own to it.
func (t *Trust) apply(root string) ([]string, error) {
	var failed []error
	note := func(err error) {
		if err != nil {
			failed = append(failed, err)
		}
	}
	at := func(path string) string { return filepath.Join(root, path) }
	dir := at(trustDir)
	earlier := earlierTrust(root)
	if t.Certificate == "" && earlier == "" {
		return nil, nil
	}
	for _, a := range anchors {
		if _, err := os.Stat(at(a.sign)); err != nil {
			continue
		}
		if t.Certificate == "" {
			note(removeIfThere(filepath.Join(at(a.dir), trustName)))
		} else {
			note(replaceFile(at(a.dir), trustName, t.Certificate, 0o644))
		}
	}
	bundle := ""
	for _, path := range append(append([]string{}, bundles...), t.Files...) {
		there, err := addToBundle(at(path), earlier, t.Certificate)
		note(err)
		if there && bundle == "" {
			bundle = path
		}
	}
	for _, path := range javaStores {
		note(addToJavaStore(at(path), t.Certificate))
	}
	note(t.link(at("/etc/ssl/certs")))
	if t.Certificate == "" {
		for _, name := range []string{trustName, "bundle.pem", "cacerts.jks"} {
			note(removeIfThere(filepath.Join(dir, name)))
		}
		return nil, errors.Join(failed...)
	}
	all := t.Roots
	if bundle == "" {
		bundle = trustDir + "/bundle.pem"
		all = t.Roots + "\n" + t.Certificate
		note(replaceFile(dir, "bundle.pem", all, 0o644))
	} else if text, err := os.ReadFile(at(bundle)); err == nil {
		all = string(text)
	}
	note(replaceFile(dir, "cacerts.jks", string(javaStore([]byte(all))), 0o644))
	// Last: it says that there is something to take away.
	note(replaceFile(dir, trustName, t.Certificate, 0o644))
	return trustVariables(bundle), errors.Join(failed...)
}

// earlierTrust gives the certificate of an authority that may have left anything, here or in what the image is
// made of; "" when there was none.
func earlierTrust(root string) string {
	places := []string{trustDir}
	for _, a := range anchors {
		places = append(places, a.dir)
	}
	for _, dir := range places {
		path := filepath.Join(root, dir, trustName)
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxBundle {
			continue
		}
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			return string(text)
		}
	}
	return ""
}

// trustVariables lead programs that bring authorities of their own, or look elsewhere, to the guest's.
func trustVariables(bundle string) []string {
	own := trustDir + "/" + trustName
	vars := []string{"NODE_EXTRA_CA_CERTS=" + own, "DENO_CERT=" + own}
	for _, name := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
		"CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "NIX_SSL_CERT_FILE",
	} {
		vars = append(vars, name+"="+bundle)
	}
	store := trustDir + "/cacerts.jks"
	return append(vars, "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore="+store+
		" -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword="+storePassword)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

// addToBundle puts certificate at the end of a bundle in place of the one that is there from us, or that the
// distribution's own tool has put there since; whether there is such a bundle.
func addToBundle(path, earlier, certificate string) (bool, error) {
	return changeStore(path, func(old []byte) []byte {
		text := withoutTrust(old)
		if earlier != "" {
			text = bytes.ReplaceAll(text, []byte(earlier), nil)
		}
		if certificate == "" {
			return text
		}
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		return append(text, trustBegin+certificate+trustEnd...)
	})
}

// changeStore replaces the content of an image's store of authorities; whether there is such a file. Owner and
// mode stay.
func changeStore(path string, change func(old []byte) []byte) (bool, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, nil // not this distribution's
	}
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxBundle {
		return false, nil
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	content := change(old)
	if bytes.Equal(old, content) {
		return true, nil
	}
	dir, name := filepath.Split(path)
	if err := replaceFile(filepath.Clean(dir), name, string(content), uint32(fi.Mode().Perm())); err != nil {
		return true, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return true, os.Lchown(path, int(st.Uid), int(st.Gid))
}

// withoutTrust gives a bundle without what an earlier addToBundle has added.
func withoutTrust(text []byte) []byte {
	for {
		begin := bytes.Index(text, []byte(trustBegin))
		if begin < 0 {
			return bytes.Clone(text)
		}
		end := bytes.Index(text[begin:], []byte(trustEnd))
		if end < 0 {
			return bytes.Clone(text[:begin])
		}
		text = append(bytes.Clone(text[:begin]), text[begin+end+len(trustEnd):]...)
	}
}

// link makes the authority findable in a directory of certificates by hashes of their subjects, as
// OpenSSL looks when no bundle is named.
func (t *Trust) link(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	target := trustDir + "/" + trustName
	entries, err := filepath.Glob(filepath.Join(dir, "????????.[0-9]"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if to, err := os.Readlink(e); err == nil && to == target {
			if err := os.Remove(e); err != nil {
				return err
			}
		}
	}
	if t.Certificate == "" {
		return nil
	}
	hash, err := subjectHash(t.Subject)
	if err != nil {
		return err
	}
	for n := range 10 {
		err := os.Symlink(target, filepath.Join(dir, fmt.Sprintf("%08x.%d", hash, n)))
		if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// subjectHash is OpenSSL's X509_NAME_hash of a subject that is one common name: of its canonical form.
func subjectHash(commonName string) (uint32, error) {
	canonical := strings.Join(strings.Fields(strings.ToLower(commonName)), " ")
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	set, err := asn1.MarshalWithParams([]attribute{{asn1.ObjectIdentifier{2, 5, 4, 3}, canonical}}, "set")
	if err != nil {
		return 0, err
	}
	sum := sha1.Sum(set)
	return binary.LittleEndian.Uint32(sum[:4]), nil
}
