{{/* Where PostgreSQL is, and who asks: the one place that knows internal from external. */}}

{{- define "backend.internal" -}}
{{- if ((.Values.global).postgresql).enabled }}true{{ end }}
{{- end }}

{{- define "backend.withTemporal" -}}
{{- if ((.Values.global).temporal).enabled }}true{{ end }}
{{- end }}

{{/* The connection as YAML: host, port, user, password as the right side of environment entries; tls, ca, database. */}}
{{- define "backend.connection" -}}
{{- $postgres := (.Values.temporalConfig).postgres | default dict }}
{{- if include "backend.internal" . }}
{{- $secret := (.Values.postgresql).existingSecret }}
{{- if not $secret }}{{ include "backend.missingSecret" . }}{{ end }}
host: {value: {{ include "backend.name" (list . "postgresql" 52) }}}
port: {value: "5432"}
user: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: username, optional: true}}}
password: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: password}}}
defaultPort: "5432"
defaultUser: postgres
tls: "off"
{{- else }}
{{- $secret := include "backend.externalSecret" . }}
{{- $keys := $postgres.secret | default dict }}
{{- if eq ($postgres.host | default "NONE") "NONE" }}
host: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $keys.hostKey | default "host" | quote }}}}}
port: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $keys.portKey | default "port" | quote }}, optional: true}}}
user: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $keys.usernameKey | default "username" | quote }}, optional: true}}}
{{- else }}
host: {value: {{ $postgres.host | quote }}}
port: {value: {{ $postgres.port | default 5432 | toString | quote }}}
user: {value: {{ $postgres.username | default "postgres" | quote }}}
{{- end }}
password: {valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ $keys.passwordKey | default "password" | quote }}}}}
defaultPort: {{ $postgres.port | default 5432 | toString | quote }}
defaultUser: {{ $postgres.username | default "postgres" | quote }}
{{- $tls := $postgres.tls | default dict }}
{{- $mode := kindIs "bool" $tls.mode | ternary "off" ($tls.mode | default "require") }}
{{- $map := $tls.caConfigMap | default dict }}
{{- $ca := $tls.caSecret | default dict }}
{{- if $map.name }}{{ $ca = $map }}{{ end }}
{{- include "backend.oneCa" (list $mode $tls) }}
tls: {{ $mode | quote }}
ca: {kind: {{ empty $map.name | ternary "secret" "configMap" }}, name: {{ $ca.name | default $secret | quote }}, key: {{ $ca.key | default "ca.crt" | quote }}}
{{- end }}
{{- $database := $postgres.database | default "temporal" }}
{{- if has $database (list "template0" "template1") }}
{{- fail (printf "backend.temporalConfig.postgres.database is %q, which PostgreSQL keeps for itself: name another database" $database) }}
{{- end }}
database: {{ $database | quote }}
adminDatabase: {{ $postgres.adminDatabase | default "postgres" | quote }}
{{- end }}

{{/* Annotations of pods that read the external Secret: Kubernetes gives a running pod nothing of a changed one. */}}
{{- define "backend.secretVersion" -}}
{{- with (((.Values.temporalConfig).postgres).secret).version }}
{{- if not (include "backend.internal" $) }}
devenv/secret-version: {{ toString . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "backend.missingSecret" -}}
{{- $name := include "backend.name" (list . "postgresql" 52) }}
{{- $namespace := .Release.Namespace }}
{{- printf `backend.postgresql.existingSecret is empty: the internal PostgreSQL takes its password from a Secret that exists. Make it:

  od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | kubectl create secret generic %s --namespace %s --from-literal=host=%s --from-literal=port=5432 --from-literal=username=postgres --from-file=password=/dev/stdin

and add: --set backend.postgresql.existingSecret=%s` $name $namespace $name $name | fail }}
{{- end }}

{{- define "backend.externalSecret" -}}
{{- $name := (((.Values.temporalConfig).postgres).secret).name }}
{{- $alias := ((.Values.temporalConfig).database).existingSecret }}
{{- if and $name $alias (ne $name $alias) }}
{{- fail (printf "backend.temporalConfig names two Secrets: postgres.secret.name is %q, database.existingSecret is %q. Set one of them" $name $alias) }}
{{- end }}
{{- coalesce $name $alias | required "no database: set global.postgresql.enabled=true for the internal PostgreSQL, or name the Secret of an external one in backend.temporalConfig.postgres.secret.name (keys host, port, username, password)" }}
{{- end }}

{{/* libpq's TLS settings, for psql and the sample service alike */}}
{{- define "backend.tlsEnv" -}}
- name: PGSSLMODE
  value: {{ eq .tls "off" | ternary "disable" .tls }}
{{- if eq .tls "verify-full" }}
- name: PGSSLROOTCERT
  value: /etc/postgresql-ca/ca.crt
{{- end }}
{{- end }}

{{/* A CA that nobody would look at is a mistake: `list mode tls` */}}
{{- define "backend.oneCa" -}}
{{- $path := "backend.temporalConfig.postgres.tls" }}
{{- $secret := ((index . 1).caSecret).name }}
{{- $map := ((index . 1).caConfigMap).name }}
{{- if and $secret $map }}
{{- fail (printf "%s names two CAs: caSecret.name is %q, caConfigMap.name is %q. Set one of them" $path $secret $map) }}
{{- end }}
{{- if and (or $secret $map) (ne (index . 0) "verify-full") }}
{{- fail (printf "%s names a CA (%q), and mode is %q, which does not look at it. Set %s.mode=verify-full, or no CA" $path (or $secret $map) (index . 0) $path) }}
{{- end }}
{{- end }}

{{- define "backend.caVolume" -}}
{{- if eq .tls "verify-full" }}
- name: postgresql-ca
  {{ .ca.kind }}:
    {{ eq .ca.kind "secret" | ternary "secretName" "name" }}: {{ .ca.name | quote }}
    items: [{key: {{ .ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}

{{- define "backend.caMount" -}}
{{- if eq .tls "verify-full" }}
- {name: postgresql-ca, mountPath: /etc/postgresql-ca, readOnly: true}
{{- end }}
{{- end }}
