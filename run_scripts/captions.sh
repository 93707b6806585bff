# Sourced by the scripts of caption/: what differs between English captions and Chinese ones (ofa prepare muge).
#
# Needs SIZE and ROOT; reads DATASET [coco] or muge; sets NAME of runs and results, PRETRAINED, DATA_DIR, BPE_DIR, and SEARCH
# for validation and samples. A Chinese token is a character: captions have more of them.
DATASET=${DATASET:-coco}
case $DATASET in
    coco) NAME=caption PRETRAINED=ofa_$SIZE LONGEST=16 DATA_DIR=${DATA_DIR:-$ROOT/dataset/caption_data} BPE_DIR=${BPE_DIR:-$ROOT/bpe/gpt2} ;;
    muge) NAME=muge PRETRAINED=ofa_cn_$SIZE LONGEST=128 DATA_DIR=${DATA_DIR:-$ROOT/dataset/muge_data} BPE_DIR=${BPE_DIR:-$ROOT/bpe/bert_cn} ;;
    *) echo "DATASET expects coco or muge; found '$DATASET'" >&2; exit 2 ;;
esac
SEARCH='{"beam":5,"max_len_b":'$LONGEST',"no_repeat_ngram_size":3}'
