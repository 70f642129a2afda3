// One round of franz-go: produce every record, read them back through a group, commit.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func main() {
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	produce(ctx)
	consume(ctx, count)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// login is what a listener over TLS asks for, nothing where there is none; and, if asked, a log.
func login() []kgo.Opt {
	var options []kgo.Opt
	if os.Getenv("CLIENT_DEBUG") != "" {
		options = append(options, kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelDebug, func() string {
			return time.Now().Format("15:04:05.000 ")
		})))
	}
	if os.Getenv("SECURITY") == "" {
		return options
	}
	options = append(options, kgo.DialTLSConfig(tlsConfig()))
	user, password := os.Getenv("LOGIN_USER"), os.Getenv("LOGIN_PASSWORD")
	switch os.Getenv("MECHANISM") {
	case "PLAIN":
		options = append(options, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "SCRAM-SHA-256":
		options = append(options, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		options = append(options, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	case "OAUTHBEARER":
		options = append(options, kgo.SASL(oauth.Auth{Token: os.Getenv("TOKEN")}.AsMechanism()))
	}
	return options
}

func tlsConfig() *tls.Config {
	authority, err := os.ReadFile(os.Getenv("CA"))
	check(err)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	if os.Getenv("KEY") != "" {
		pair, err := tls.LoadX509KeyPair(os.Getenv("CERTIFICATE"), os.Getenv("KEY"))
		check(err)
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

func produce(ctx context.Context) {
	client, err := kgo.NewClient(append(login(),
		kgo.SeedBrokers(strings.Split(os.Getenv("BOOTSTRAP"), ",")...),
		kgo.DefaultProduceTopic(os.Getenv("TOPIC")),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codecs[os.Getenv("CODEC")]),
	)...)
	check(err)
	defer client.Close()
	words, err := os.Open(os.Getenv("WORDS"))
	check(err)
	for lines := bufio.NewScanner(words); lines.Scan(); {
		key, value, _ := bytes.Cut(bytes.Clone(lines.Bytes()), []byte("\t"))
		client.Produce(ctx, &kgo.Record{Key: key, Value: value}, func(_ *kgo.Record, err error) { check(err) })
	}
	check(client.Flush(ctx))
}

func consume(ctx context.Context, count int) {
	client, err := kgo.NewClient(append(login(),
		kgo.SeedBrokers(strings.Split(os.Getenv("BOOTSTRAP"), ",")...),
		kgo.ConsumerGroup(os.Getenv("GROUP")),
		kgo.ConsumeTopics(os.Getenv("TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)...)
	check(err)
	defer client.Close()
	file, err := os.Create(os.Getenv("OUT"))
	check(err)
	out := bufio.NewWriter(file)
	for left := count; left > 0; {
		fetches := client.PollFetches(ctx)
		for _, problem := range fetches.Errors() {
			log.Fatalf("%d records did not come: %v", left, problem.Err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Fprintf(out, "%s\t%s\n", record.Key, record.Value)
			left--
		})
	}
	check(client.CommitUncommittedOffsets(ctx))
	check(out.Flush())
	check(file.Close())
}
