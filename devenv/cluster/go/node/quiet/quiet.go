// Package quiet keeps Kubernetes' work queues from measuring themselves: each of some hundred would wake its process
// twice a second, for figures that nobody reads.
package quiet

import (
	_ "unsafe" // for go:linkname

	"k8s.io/client-go/util/workqueue"
)

// none is the provider of figures that the queues begin with. It measures nothing, and has no other name outside.
//
//go:linkname none k8s.io/client-go/util/workqueue.globalMetricsProvider
var none workqueue.MetricsProvider

// Only the first provider counts. The one of k8s.io/component-base is set after this: packages are initialised in the
// order of their paths.
func init() { workqueue.SetProvider(none) }
