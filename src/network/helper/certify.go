package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// maxOrder bounds what is read, in bytes.
const maxOrder = 1 << 20

// signed is a certificate with its key, PEM.
type signed struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// order asks for a certificate: an authority's of its own, or a server's.
type order struct {
	// Subject is the common name.
	Subject string `json:"subject"`
	// Permitted are the names (with all below them) that a new authority may speak for.
	Permitted []string `json:"permitted"`
	// Authority signs; without one the certificate is an authority's.
	Authority *signed `json:"authority"`
	// Names are those of a server.
	Names []string `json:"names"`
}

// certify reads an order and writes what it asks for. Keys go by pipes alone.
func certify(in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(io.LimitReader(in, maxOrder)).Decode(&o); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: o.Subject},
		// Guests' clocks are set from the host's and may be a little behind.
		NotBefore:             now.Add(-24 * time.Hour),
		BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if o.Authority == nil {
		template.NotAfter = now.AddDate(10, 0, 0)
		template.IsCA = true
		template.MaxPathLenZero = true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		// Not critical: what does not know constraints ignores them, what knows them keeps to them.
		template.PermittedDNSDomains = o.Permitted
		template.ExcludedIPRanges = everywhere
	} else {
		if parent, signer, err = o.Authority.parse(); err != nil {
			return err
		}
		// Some clients take no server's certificate that is valid for longer.
		template.NotAfter = now.AddDate(0, 0, 397)
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames = o.Names
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDer, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(signed{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDer})),
	})
}

// everywhere is every address: an authority for names speaks for none.
var everywhere = []*net.IPNet{
	{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
}

// parse gives an authority's certificate and key.
func (s *signed) parse() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificate, _ := pem.Decode([]byte(s.Certificate))
	key, _ := pem.Decode([]byte(s.Key))
	if certificate == nil || key == nil {
		return nil, nil, errors.New("the authority is not PEM")
	}
	parsed, err := x509.ParseCertificate(certificate.Bytes)
	if err != nil {
		return nil, nil, err
	}
	any, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := any.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("the authority's key is a %T", any)
	}
	return parsed, signer, nil
}
